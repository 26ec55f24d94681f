//! A private Prometheus, run from the installed programs, as an operator has one.

use std::{
    fmt::Write,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::{free_address, until};

const MISSING: &str = "there is Prometheus: `make test` installs it";

/// Scrapes each second what it is told to; ends with the test.
pub struct Prometheus {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    pub async fn start(targets: &[SocketAddr]) -> Self {
        Self::start_with_rules(targets, "").await
    }

    /// It looks at these rules each second, too.
    pub async fn start_with_rules(targets: &[SocketAddr], rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rules.yml"), rules).unwrap();
        let mut config = "global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files: [rules.yml]\n\
                          scrape_configs:\n- job_name: whitemonday\n  static_configs:\n  - targets:\n"
            .to_owned();
        for target in targets {
            writeln!(config, "    - {target}").unwrap();
        }
        let config_file = folder.path().join("prometheus.yml");
        std::fs::write(&config_file, config).unwrap();
        let address = free_address();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config_file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect(MISSING);
        let prometheus = Self { process, address, _folder: folder };
        until(async || prometheus.get("/-/ready").await).await;
        prometheus
    }

    /// The value of an expression of which there is one series; `None` while there is none.
    pub async fn query(&self, expression: &str) -> Option<f64> {
        let mut url = reqwest::Url::parse(&format!("http://{}/api/v1/query", self.address)).unwrap();
        url.query_pairs_mut().append_pair("query", expression);
        let answer: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer:#}");
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// The names of all series that it has.
    pub async fn names(&self) -> Vec<String> {
        let text = self.get("/api/v1/label/__name__/values").await.unwrap();
        serde_json::from_value(serde_json::from_str::<Value>(&text).unwrap()["data"].take()).unwrap()
    }

    async fn get(&self, path: &str) -> Option<String> {
        let answer = reqwest::get(format!("http://{}{path}", self.address)).await.ok()?;
        if answer.status() == 200 { answer.text().await.ok() } else { None }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// What promtool has to say against metrics.
pub async fn complaints(metrics: &str) -> String {
    let mut command = tokio::process::Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut promtool = command.spawn().expect(MISSING);
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).await.unwrap();
    let output = promtool.wait_with_output().await.unwrap();
    [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat()
}
