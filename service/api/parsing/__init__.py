"""From bytes on the wire to typed values: bodies, JSON, lines, forms, images, search options. Limits hold here."""
