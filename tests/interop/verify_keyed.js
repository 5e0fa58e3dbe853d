// Verifies a key-signed bundle with npm's @sigstore/verify.
// Arguments: JSON {bundle, key, hint, authority?, validFor?}; prints {ok} or {code, message}.
'use strict';
const { bundleFromJSON } = require('@sigstore/bundle');
const { crypto } = require('@sigstore/core');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const input = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const key = crypto.createPublicKey(input.key);
const known = (hint) => {
  if (hint !== input.hint) throw new Error(`unknown key ${hint}`);
  const [start, end] = input.validFor ?? [];
  return {
    publicKey: key,
    validFor: (date) => !input.validFor || (new Date(start) <= date && date <= new Date(end)),
  };
};
const authorities = input.authority
  ? [{
      subject: undefined, uri: '', operator: '',
      certChain: {
        certificates: input.authority.map((der) => ({ rawBytes: Buffer.from(der, 'base64') })),
      },
      validFor: { start: new Date(0), end: undefined },
    }]
  : [];
const root = {
  mediaType: '', tlogs: [], ctlogs: [], certificateAuthorities: [],
  timestampAuthorities: authorities,
};
try {
  const options = { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: authorities.length };
  new Verifier(toTrustMaterial(root, known), options)
    .verify(toSignedEntity(bundleFromJSON(input.bundle)));
  console.log(JSON.stringify({ ok: true }));
} catch (error) {
  console.log(JSON.stringify({ ok: false, code: error.code ?? '', message: error.message }));
}
