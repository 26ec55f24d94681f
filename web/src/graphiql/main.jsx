// GraphiQL with a bar to sign in and a first purchase in its tabs.

import { GraphiQL } from "graphiql";
import "graphiql/style.css";
import { createRoot } from "react-dom/client";
import { exampleTabs } from "./examples.js";
import { fetcher } from "./fetcher.js";
import "./graphiql.css";
import { NewKeyButton } from "./NewKeyButton.jsx";
import { SessionBar } from "./SessionBar.jsx";

// What is typed here has passwords and tokens in it, so GraphiQL's memory ends with the browser tab, too.
const storage = sessionStorage;
const PREFIX = "graphiql:"; // GraphiQL's own, in front of all its keys

const defaultTabs = exampleTabs();
if (!storage.getItem(`${PREFIX}tabState`)) {
  // GraphiQL looks for the tab that was open last by its query, and adds an empty one when there is none.
  storage.setItem(`${PREFIX}query`, defaultTabs[0].query);
}

function restoreExamples() {
  if (!window.confirm("Replace all tabs with the examples?")) return;
  for (const key of ["tabState", "query", "variables", "headers"]) storage.removeItem(PREFIX + key);
  location.reload();
}

function App() {
  return (
    <>
      <SessionBar onRestoreExamples={restoreExamples} />
      <main className="ide">
        <GraphiQL
          fetcher={fetcher}
          storage={storage}
          defaultTabs={defaultTabs}
          defaultEditorToolsVisibility="variables"
          shouldPersistHeaders={false}
        >
          <GraphiQL.Logo>{null}</GraphiQL.Logo>
          <GraphiQL.Toolbar>
            {({ prettify, merge, copy }) => <>{prettify}{merge}{copy}<NewKeyButton /></>}
          </GraphiQL.Toolbar>
        </GraphiQL>
      </main>
    </>
  );
}

createRoot(document.getElementById("root")).render(<App />);
