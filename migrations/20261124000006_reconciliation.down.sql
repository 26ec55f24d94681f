DROP TABLE reconciliation_break;
DROP TABLE reconciliation;
