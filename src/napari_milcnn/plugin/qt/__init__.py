"""Qt parts that all docks share: threads, forms, tables, icons and figures."""
