import { ReloadIcon, ToolbarButton, useEditorContext } from "@graphiql/react";
import { randomUuid } from "./examples.js";

const KEY = /("idempotencyKey"\s*:\s*")[^"]*(?=")/g;

/** Puts a fresh UUID for each `idempotencyKey` of the variables; there only when the tab has one. */
export function NewKeyButton() {
  const { activeTabIndex, tabs, variableEditor } = useEditorContext({ nonNull: true });
  if (!tabs[activeTabIndex]?.variables?.includes('"idempotencyKey"')) return null;
  const renew = () => {
    variableEditor?.setValue(variableEditor.getValue().replace(KEY, (_, before) => before + randomUuid()));
  };
  return (
    <ToolbarButton label="New idempotency key" onClick={renew}>
      <ReloadIcon className="graphiql-toolbar-icon" aria-hidden="true" />
    </ToolbarButton>
  );
}
