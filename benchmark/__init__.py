"""The harness: protocol, suite, plan, run, launch."""
