"""The sections of the configuration, in the order in which they are used."""
