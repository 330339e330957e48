"""RFC 6455 conformance: Autobahn|Testsuite against an echo server made with this library."""
