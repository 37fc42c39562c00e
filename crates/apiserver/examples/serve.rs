//! Serves the API on 127.0.0.1: `serve DIR PORT` writes `DIR/kubeconfig` and runs until killed.

use std::net::TcpListener;
use std::path::PathBuf;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap_or_else(|| "/tmp/apiserver".into()));
    let port = arguments.next().map_or(Ok(0), |p| p.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let url = format!("https://{}", listener.local_addr()?);
    let pki = certs::Pki::open(&dir)?;
    let admin = pki.kubeconfig("flatnet", &url, "kubernetes-admin", Some("system:masters"))?;
    std::fs::write(dir.join("kubeconfig"), admin)?;
    let server = apiserver::Server::start(apiserver::Options {
        data_dir: dir,
        listeners: vec![listener],
        service_cidrs: vec!["10.96.0.0/12".parse()?],
        node_ports: 30000..=32767,
        advertise: vec!["10.0.1.1".parse()?],
        advertise_port: 6443,
        connect: apiserver::connect_directly(),
    })
    .await?;
    println!("{url}");
    tokio::signal::ctrl_c().await?;
    server.stop().await;
    Ok(())
}
