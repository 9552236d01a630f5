"""What a shard looks like inside: Arrow schemas, and conversions to and from the nouns. No paths here."""
