"""Files of other people and programs, read: containers, encodings, tables, JSON in its shapes. Knows no database."""
