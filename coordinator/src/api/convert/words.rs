//! Words as documents write them.

use regent_core::application::{Action, Mode, OnFailure};

/// The kind of a step.
pub(crate) const fn action(action: Action) -> &'static str {
    match action {
        Action::Fence => "fence",
        Action::Quiesce => "quiesce",
        Action::CatchUp => "catchUp",
        Action::Promote => "promote",
        Action::Activate => "activate",
        Action::Deactivate => "deactivate",
        Action::Redirect => "redirect",
        Action::Verify => "verify",
        Action::Rejoin => "rejoin",
        Action::Restore => "restore",
        Action::Run => "run",
        Action::Approve => "approve",
        Action::Wait => "wait",
    }
}

/// Who starts a failover.
pub(crate) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Automatic => "automatic",
        Mode::Approve => "approve",
        Mode::Manual => "manual",
    }
}

/// What follows when the attempts of a step are used up.
pub(super) const fn on_failure(on_failure: OnFailure) -> &'static str {
    match on_failure {
        OnFailure::Stuck => "stuck",
        OnFailure::Continue => "continue",
        OnFailure::Undo => "undo",
    }
}
