"""A cluster and an object store on this machine alone, for the demo and the tests: real servers on loopback."""
