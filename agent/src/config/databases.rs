//! The options of the database drivers, as the configuration names them.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

// INTEGRATION: these two lines become `pub use crate::driver::postgres::PostgresOptions;` and the same for redis.
pub use self::Unread as PostgresOptions;
pub use self::Unread as RedisOptions;

/// Options that no driver of this build reads.
#[derive(Debug, Clone)]
pub struct Unread;

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}
