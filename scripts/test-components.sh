#!/usr/bin/env bash
# Gets what the tests run against. As root, missing Debian packages are installed. What
# cannot be had fails with CI=true or AGNES_REQUIRE_COMPONENTS=1, else its tests are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing() { # component, how to get it
  echo "==================================================================" >&2
  echo "MISSING: $1. Tests that need it are SKIPPED. Get it: $2" >&2
  echo "==================================================================" >&2
  if [ "${CI:-}" = true ] || [ "${AGNES_REQUIRE_COMPONENTS:-}" = 1 ]; then exit 1; fi
}

has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; }

if ! has_postgres && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing PostgreSQL for the tests" >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; } \
    >/dev/null </dev/null || echo "apt-get did not install it" >&2
fi
has_postgres || missing "PostgreSQL" "apt-get install postgresql"

scripts/fetch-extensions.sh || missing "DuckDB's extensions" "scripts/fetch-extensions.sh, which needs pip"
