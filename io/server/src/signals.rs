//! What tells a process to stop.

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
