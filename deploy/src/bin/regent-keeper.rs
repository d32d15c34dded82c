//! Keeps the processes of one region of a world; see `regent_deploy::keeper`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    regent_deploy::keeper::serve::serve().await?;
    // The thread that reads standard input may still wait for a line.
    std::process::exit(0)
}
