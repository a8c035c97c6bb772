"""What all pages share: figures, tables, words, templates, schemas."""
