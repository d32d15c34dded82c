//! The options of the database drivers, as the configuration names them.

pub use crate::driver::postgres::PostgresOptions;
pub use crate::driver::redis::RedisOptions;
