// The service: greets whoever asks, and lists its own files with their checksums.
const { createServer, get } = require("node:http");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const escape = require("escape-html");
const { greet } = require("@example/greeting");
const { words } = require("@example/text");

const folder = path.join(__dirname, "public");

function checksum(file) {
  return execFileSync(process.env.CHECKSUM ?? "/app/bin/checksum", { input: fs.readFileSync(file) }).toString().trim();
}

function page(name) {
  const files = fs.readdirSync(folder).sort().filter((file) => fs.statSync(path.join(folder, file)).isFile());
  const rows = files.map((file) => `<li>${escape(file)} ${checksum(path.join(folder, file))}</li>\n`);
  return `<h1>${escape(greet(name))}</h1>\n<ul>\n${rows.join("")}</ul>\n<p>${words.goodbye}</p>\n`;
}

const server = createServer((request, response) => {
  const name = new URL(request.url, "http://localhost").searchParams.get("name") ?? "world";
  response.setHeader("content-type", "text/html; charset=utf-8");
  response.end(page(name));
});

function check() {
  get({ host: "127.0.0.1", port: server.address().port, path: "/?name=%3Cyou%3E" }, (response) => {
    response.pipe(process.stdout);
    response.on("end", () => server.close());
  });
}

if (require.main === module) {
  const once = process.argv.includes("--check");
  server.listen(once ? 0 : Number(process.env.PORT ?? 8080), once ? check : undefined);
  process.on("SIGTERM", () => server.close());
}

module.exports = { page };
