// A small service over some of the packages. What it does is not measured; its bytes are the app's own part of the image.
const express = require("express");
const pino = require("pino");
const { version } = require("./package.json");

const log = pino({ name: "shop" });
const app = express();

app.get("/version", (request, response) => response.json({ version }));
app.listen(Number(process.env.PORT ?? 8080), () => log.info({ version }, "listening"));
