#!/usr/bin/env bash
# Fetches what the tests of pages, mails and sign-in use, once: a driver for the browser, checks
# of accessibility, an SMTP server, identity providers.
#
#   scripts/fetch-web-tools.sh [FOLDER]        FOLDER: .duckdb/tools
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-${AGNES_TEST_TOOLS:-$root/.duckdb/tools}}
python=${PYTHON:-python3}
mkdir -p "$folder"

if [ ! -d "$folder/node_modules/playwright-core" ] || [ ! -d "$folder/node_modules/axe-core" ]; then
  PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm install --silent --no-audit --no-fund --no-package-lock \
    --prefix "$folder" playwright-core@1.56 axe-core@4.11
  echo "driver of the browser in $folder" >&2
fi
if [ ! -d "$folder/node_modules/oidc-provider" ] || [ ! -d "$folder/node_modules/oauth2-mock-server" ]; then
  npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts \
    --prefix "$folder" oidc-provider@9.13.3 oauth2-mock-server@8.2.3
  echo "identity providers in $folder" >&2
fi
if [ ! -d "$folder/python/aiosmtpd" ]; then
  "$python" -m pip install --quiet --disable-pip-version-check --target "$folder/python" aiosmtpd==1.4.6
  echo "SMTP server in $folder" >&2
fi
