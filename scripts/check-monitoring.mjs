// Checks dashboards and alert rules: panels say what they show, alerts have a section in docs/OPERATIONS.md, and every metric is one of
// docs/METRICS.md. Prints the queries of all dashboards as recording rules, so that promtool can look at them.
import { readdirSync, readFileSync } from "node:fs";

const read = (path) => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");
const problems = [];

const series = new Set([...read("docs/METRICS.md").matchAll(/^\|\s*`(\w+)/gm)].map(([, name]) => name));
function checkSeries(place, text) {
  for (const [name] of text.matchAll(/\b(whitemonday|process)_\w+/g)) {
    if (!series.has(name) && !series.has(name.replace(/_(bucket|sum|count)$/, ""))) problems.push(`${place}: ${name} is not in docs/METRICS.md`);
  }
}

const rules = read("deploy/prometheus/rules.yml");
checkSeries("rules.yml", rules);
const sections = new Set([...read("docs/OPERATIONS.md").matchAll(/^#+ (.+)$/gm)].map(([, title]) => title.toLowerCase().replace(/ /g, "-")));
for (const [, alert, anchor] of rules.matchAll(/- alert: (\w+)[\s\S]*?runbook: docs\/OPERATIONS\.md#(\S+)/g)) {
  if (anchor !== alert.toLowerCase() || !sections.has(anchor)) problems.push(`${alert} has no section in docs/OPERATIONS.md`);
}
if (rules.split("- alert:").length !== rules.split("runbook:").length) problems.push("an alert names no runbook");

const queries = [];
for (const file of readdirSync(new URL("../deploy/grafana/dashboards/", import.meta.url))) {
  const dashboard = JSON.parse(read(`deploy/grafana/dashboards/${file}`));
  const ids = new Set(dashboard.panels.map(({ id }) => id));
  if (ids.size !== dashboard.panels.length) problems.push(`${file}: two panels have one id`);
  for (const panel of dashboard.panels) {
    const place = `${file}: ${panel.title}`;
    if (!panel.description || !panel.fieldConfig.defaults.unit) problems.push(`${place}: no description or no unit`);
    for (const { expr } of panel.targets) {
      checkSeries(place, expr);
      queries.push(expr.replaceAll("$__rate_interval", "1m"));
    }
  }
}

if (problems.length > 0) {
  console.error(problems.join("\n"));
  process.exit(1);
}
console.log(JSON.stringify({ groups: [{ name: "dashboards", rules: queries.map((expr, number) => ({ record: `query:${number}`, expr })) }] }));
