"""A site's own trust: keys, the signed documents that pods pin, revocations, second signatures."""
