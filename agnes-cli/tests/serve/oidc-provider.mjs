// A certified OpenID provider that refuses what the standard refuses.
//   node oidc-provider.mjs TOOLS PORT CALLBACK-ADDRESS [email in the userinfo answer only: yes]
const [tools, port, callback, apart] = process.argv.slice(2);
const { default: Provider } = await import(`${tools}/node_modules/oidc-provider/lib/index.js`);
const people = {
  ann: { email: 'Ann@acme.example', email_verified: true, name: 'Ann Acme' },
  bob: { email: 'bob@acme.example', email_verified: false, name: 'Bob' },
  eve: { email: 'eve@evil.example', email_verified: true, name: 'Eve' },
};
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: 'agnes',
    client_secret: 'a secret of the client: with signs % & +',
    redirect_uris: [callback],
  }],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: apart === 'yes',
  pkce: { required: () => true },
  cookies: { keys: ['a key for cookies of this test'] },
  findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ ...people[id], sub: id }) }),
});
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
