"""What a report says, as plain values: read from the files of a run folder, whole or half-finished. Nothing here draws."""
