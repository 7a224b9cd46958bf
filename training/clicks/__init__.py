"""From the click log to what learners can use: import, export, filters, and the collapsed lists."""
