"""Use cases on galleries: catalogue, enrolment, entries, search, transfer. Memory follows the record here."""
