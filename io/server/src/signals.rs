//! What tells a process to stop, or to write down what its node did last.

/// Waits for SIGINT or SIGTERM.
pub async fn stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without handlers the signals keep their default effect, which ends the process as well.
        _ => std::future::pending().await,
    }
}

/// Calls back at each SIGUSR1.
pub async fn at_each_user_signal(mut told: impl FnMut()) {
    use tokio::signal::unix::{SignalKind, signal};
    if let Ok(mut user) = signal(SignalKind::user_defined1()) {
        while user.recv().await.is_some() {
            told();
        }
    }
}
