"""Pictures and pages for people, made of the results of the nouns."""
