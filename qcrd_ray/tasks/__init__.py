"""What a question is: read, asked, parsed, compared."""
