const test = require("node:test");
const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const { page } = require("../dist/server.js");

test("names are escaped, files are listed with their checksums", () => {
  const text = page("<script>");
  assert.match(text, /Hello, &lt;script&gt;/);
  assert.match(text, /<li>empty 00000000<\/li>/);
  assert.match(text, /<li>hello world.txt [0-9a-f]{8}<\/li>/);
  assert.match(text, /Grüße/);
});

test("odd files arrive as they are", () => {
  const folder = path.join(__dirname, "../dist/public");
  assert.equal(fs.readlinkSync(path.join(folder, "latest")), "images/v2");
  assert.ok(fs.statSync(path.join(folder, "update.sh")).mode & 0o100);
  assert.equal(fs.readFileSync(path.join(folder, "latest/name"), "utf8"), "v2\n");
});
