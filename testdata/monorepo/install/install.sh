# Called by the test: a project in /tmp, both tarballs, no network, then both packages are used.
set -eu
here=$PWD
mkdir /tmp/project
cd /tmp/project
echo '{ "name": "fresh", "private": true }' > package.json
node "$here/npm-cli/bin/npm-cli.js" install --offline --no-audit --no-fund \
  "$here"/../libs/text/package/*.tgz "$here"/../libs/greeting/package/*.tgz
node -e '
  const { greet } = require("@example/greeting");
  if (greet("you") !== "* Hello, you *") throw new Error(greet("you"));
'
test "$(node_modules/.bin/greet me)" = "* Hello, me *"
