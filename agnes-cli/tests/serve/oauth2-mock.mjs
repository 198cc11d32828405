// An identity provider whose tokens are wrong in the way that standard input says, a word a line.
//   node oauth2-mock.mjs TOOLS PORT
import { createHmac, createPublicKey } from 'node:crypto';
import { createInterface } from 'node:readline';

const [tools, port] = process.argv.slice(2);
const { OAuth2Server } = await import(`${tools}/node_modules/oauth2-mock-server/dist/index.mjs`);

const server = new OAuth2Server();
await server.issuer.keys.generate('RS256');
await server.start(Number(port), '127.0.0.1');
const issuer = server.issuer.url;

let wrong = 'nothing';
createInterface({ input: process.stdin }).on('line', async (line) => {
  wrong = line.trim();
  // The keys take turns: from now on ID tokens are signed with one that nobody has seen.
  if (wrong === 'rotated') await server.issuer.keys.generate('ES256');
  console.log(`now ${wrong}`);
});

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const now = () => Math.floor(Date.now() / 1000);

server.service.on('beforeTokenSigning', (token) => {
  const says = token.payload;
  Object.assign(says, { sub: '1', aud: 'agnes', email: 'ann@acme.example', email_verified: true, name: 'Ann' });
  const change = {
    issuer: { iss: 'https://elsewhere.example' },
    audience: { aud: 'somebody else' },
    audiences: { aud: ['agnes', 'somebody else'] },
    party: { azp: 'somebody else' },
    nonce: { nonce: 'another' },
    expired: { exp: now() - 3600, iat: now() - 7200 },
    future: { iat: now() + 3600, exp: now() + 7200 },
    stale: { iat: now() - 3600 },
    unverified: { email_verified: false },
    verification: { email_verified: undefined },
    apart: { email: undefined, email_verified: undefined },
    'apart-of-another': { email: undefined, email_verified: undefined },
    subject: { sub: '' },
  }[wrong] ?? {};
  Object.assign(says, change);
  if (wrong === 'no-nonce') delete says.nonce;
});

server.service.on('beforeResponse', (answer) => {
  if (!answer.body.id_token) return;
  const [head, body, signature] = answer.body.id_token.split('.');
  const header = JSON.parse(Buffer.from(head, 'base64url'));
  const mac = (key) => {
    const signed = `${encode({ alg: 'HS256', kid: header.kid })}.${body}`;
    return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
  };
  const jwk = server.issuer.keys.toJSON()[0];
  const pem = createPublicKey({ key: jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
  const flipped = (signature[0] === 'A' ? 'B' : 'A') + signature.slice(1);
  const changed = encode({ ...JSON.parse(Buffer.from(body, 'base64url')), email: 'boss@acme.example' });
  const token = {
    signature: () => `${head}.${body}.${flipped}`,
    claims: () => `${head}.${changed}.${signature}`,
    unsigned: () => `${encode({ alg: 'none' })}.${body}.`,
    'unsigned-with-signature': () => `${encode({ alg: 'none', kid: header.kid })}.${body}.${signature}`,
    'mac-of-key': () => mac(pem),
    'mac-of-jwk': () => mac(JSON.stringify(jwk)),
    'mac-of-secret': () => mac('s3cret of the client'),
    'other-algorithm': () => `${encode({ ...header, alg: 'PS256' })}.${body}.${signature}`,
    'unknown-key': () => `${encode({ ...header, kid: 'nobody' })}.${body}.${signature}`,
    garbage: () => 'no token',
  }[wrong];
  if (token) answer.body.id_token = token();
  if (wrong === 'no-id-token') delete answer.body.id_token;
  if (wrong === 'server-error') { answer.statusCode = 500; answer.body = { error: 'server_error' }; }
  if (wrong === 'not-json') answer.body = '<html>';
  if (wrong === 'error-with-lines') { answer.statusCode = 400; answer.body = { error: 'a\nINFO forged line' }; }
});

server.service.on('beforeAuthorizeRedirect', (redirect) => {
  const says = redirect.url.searchParams;
  if (wrong === 'denied') {
    says.delete('code');
    says.set('error', 'access_denied');
  }
  if (wrong === 'state') says.set('state', 'another');
  if (wrong === 'mixed-up') says.set('iss', 'https://elsewhere.example');
});

server.service.on('beforeUserinfo', (answer) => {
  answer.body = { sub: wrong === 'apart-of-another' ? '2' : '1', email: 'ann@acme.example', email_verified: true };
});

console.log(`ready ${issuer}`);
