//! The house keeps its order: who may use what, and documents that name what exists.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(path.to_str().unwrap(), ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// Lines of code of src/ outside `allowed` that contain one of `words`.
fn strangers(allowed: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files("src", ".rs") {
        let name = path.to_str().unwrap().to_owned();
        if allowed.iter().any(|place| name.starts_with(place)) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            if !is_comment && words.iter().any(|word| line.contains(word)) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn graphql_stays_in_resolvers_and_http() {
    assert_none(&strangers(&["src/resolvers", "src/http"], &["async_graphql"]));
}

#[test]
fn http_servers_stay_in_http_and_the_simulator() {
    assert_none(&strangers(&["src/http", "src/simulator"], &["axum::", "use axum"]));
}

#[test]
fn sql_stays_in_the_store() {
    // Traces have a span for each statement that sqlx tells of.
    assert_none(&strangers(
        &["src/store", "src/embedded", "src/telemetry/statements.rs"],
        &["sqlx::query", "query_as!", "query_scalar", "QueryBuilder", "SELECT ", "pgmq."],
    ));
}

#[test]
fn only_services_open_transactions() {
    // The designs that the purchase is compared with stand outside the program; the pool is what services open them on.
    assert_none(&strangers(&["src/services", "src/stampede/rivals.rs", "src/store/database.rs"], &[".begin()"]));
}

#[test]
fn the_environment_is_read_in_one_place() {
    assert_none(&strangers(&["src/config/settings.rs"], &["std::env", "env::var"]));
}

#[test]
fn the_time_is_asked_for_in_one_place() {
    assert_none(&strangers(&["src/clock.rs"], &["Utc::now"]));
}

#[test]
fn the_outside_world_stays_in_clients() {
    assert_none(&strangers(&["src/clients"], &["lettre", "deadpool_redis"]));
    // The simulator, an outside party itself, calls the shop's endpoint for events.
    assert_none(&strangers(&["src/clients", "src/simulator/webhooks.rs"], &["reqwest"]));
}

#[test]
fn opentelemetry_stays_in_telemetry() {
    assert_none(&strangers(&["src/telemetry", "src/clients/trace_collector.rs"], &["opentelemetry"]));
}

#[test]
fn http_by_hand_is_for_the_server_and_the_load_generator() {
    assert_none(&strangers(&["src/http/server.rs", "src/stampede/load.rs"], &["hyper::", "hyper_util", "http_body_util"]));
}

#[test]
fn services_and_store_know_nothing_of_those_above_them() {
    let above = ["crate::resolvers", "crate::http", "crate::jobs", "crate::cli", "resolvers::", "jobs::"];
    let found: Vec<_> = strangers(&[], &above)
        .into_iter()
        .filter(|line| ["src/services", "src/store", "src/domain", "src/clients", "src/auth"].iter().any(|place| line.starts_with(place)))
        .collect();
    assert_none(&found);
    let found: Vec<_> = strangers(&[], &["services::", "crate::app"]).into_iter().filter(|line| line.starts_with("src/store")).collect();
    assert_none(&found);
    let found: Vec<_> = strangers(&[], &["crate::store", "crate::services", "crate::app", "crate::config"])
        .into_iter()
        .filter(|line| line.starts_with("src/domain"))
        .collect();
    assert_none(&found);
}

#[test]
fn documents_name_paths_that_exist() {
    let mut checked = 0;
    let mut documents = files("docs", ".md");
    documents.extend(["README.md", "CONTRIBUTING.md"].map(PathBuf::from));
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for quoted in text.split('`').skip(1).step_by(2) {
            let path = quoted.split("::").next().unwrap_or_default();
            let is_path = ["src/", "migrations/", "web/", "docs/", "tests/", "scripts/", "schema/", "frontend-queries/"]
                .iter()
                .any(|place| path.starts_with(place))
                && !path.contains(['*', '<', '{', ' ', '…', 'N']);
            if is_path && !path.starts_with("web/dist") {
                assert!(Path::new(path).exists(), "{} names {path}", document.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "{checked} paths");
}

#[test]
fn planted_bugs_still_apply_and_name_tests_that_exist() {
    let patches = files("tests/planted-bugs", ".patch");
    assert!(patches.len() >= 5, "{patches:?}");
    let tests: String =
        [files("tests/it", ".rs"), files("src", ".rs")].concat().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    // A source archive may be built where there is no git.
    let has_git = Command::new("git").arg("--version").output().is_ok();
    for patch in patches {
        let text = fs::read_to_string(&patch).unwrap();
        let named: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# caught by: ")).collect();
        assert!(!named.is_empty(), "{}", patch.display());
        for test in named {
            let name = test.rsplit("::").next().unwrap();
            assert!(tests.contains(&format!("fn {name}(")), "{} names {test}", patch.display());
        }
        if has_git {
            let applied = Command::new("git").args(["apply", "--check"]).arg(&patch).output().unwrap();
            assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        }
    }
}

#[test]
fn the_table_of_security_names_tests_that_exist() {
    let tests: String =
        [files("tests/it", ".rs"), files("src", ".rs")].concat().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let text = fs::read_to_string("docs/SECURITY.md").unwrap();
    let (_, table) = text.split_once("| ASVS |").unwrap();
    let names: Vec<_> = table.split('`').skip(1).step_by(2).filter(|name| name.contains('_')).collect();
    for name in &names {
        assert!(tests.contains(&format!("fn {name}(")), "docs/SECURITY.md names {name}");
    }
    assert!(names.len() >= 30, "{} tests", names.len());
}

/// How many tests a document names, as `module::test`; each of them is there.
fn named_tests(document: &str) -> usize {
    let text = fs::read_to_string(document).unwrap();
    let quoted = text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::"));
    let names: Vec<_> = quoted.filter(|(module, test)| !test.is_empty() && !module.contains(' ')).collect();
    for (module, test) in &names {
        let path = format!("tests/it/{module}.rs");
        let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{document} names {path}"));
        assert!(text.contains(&format!("fn {test}()")), "{document} names {module}::{test}");
    }
    names.len()
}

#[test]
fn the_table_of_races_names_tests_that_exist() {
    let table = fs::read_to_string("docs/RACES.md").unwrap();
    let count = named_tests("docs/RACES.md");
    assert!(count >= 25, "{count} tests");
    for race in 1..=25 {
        assert!(table.contains(&format!("\n| {race} |")), "race {race}");
    }
}

#[test]
fn the_table_of_attacks_names_tests_that_exist() {
    let count = named_tests("docs/ABUSE.md");
    assert!(count >= 30, "{count} tests");
}
