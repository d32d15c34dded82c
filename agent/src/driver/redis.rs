//! Redis on this machine.
