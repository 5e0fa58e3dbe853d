// Verifies a keyless bundle with npm's @sigstore/verify.
// Arguments: JSON {bundle, root, identity}; prints {ok} or {code, message}.
'use strict';
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const input = JSON.parse(require('fs').readFileSync(0, 'utf8'));
try {
  const material = toTrustMaterial(TrustedRoot.fromJSON(input.root));
  const options = { tlogThreshold: 1, ctlogThreshold: 1, timestampThreshold: 1 };
  new Verifier(material, options).verify(toSignedEntity(bundleFromJSON(input.bundle)), {
    subjectAlternativeName: input.identity.name,
    extensions: { issuer: input.identity.issuer },
  });
  console.log(JSON.stringify({ ok: true }));
} catch (error) {
  console.log(JSON.stringify({ ok: false, code: error.code ?? '', message: error.message }));
}
