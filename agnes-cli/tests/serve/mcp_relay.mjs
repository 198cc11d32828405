// Takes requests to `/mcp`, the one address the Inspector's command line knows, to a server's own.
import http from 'node:http';

const target = `${process.argv[2]}/api/mcp/http`;
http
  .createServer((asked, answer) => {
    const sent = http.request(target, { method: asked.method, headers: asked.headers }, (got) => {
      answer.writeHead(got.statusCode, got.headers);
      got.pipe(answer);
    });
    sent.on('error', () => answer.destroy());
    asked.pipe(sent);
  })
  .listen(0, '127.0.0.1', function () {
    console.log(this.address().port);
  });
