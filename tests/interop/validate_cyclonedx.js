// Validates a CycloneDX document with npm's own library: argument VERSION, document on stdin.
// Prints null if it is valid, else what is wrong.
'use strict';
const { Spec, Validation } = require('@cyclonedx/cyclonedx-library');

const data = require('fs').readFileSync(0, 'utf8');
new Validation.JsonStrictValidator(process.argv[2]).validate(data).then(
  (problem) => console.log(JSON.stringify(problem)),
  (error) => { console.error(error); process.exit(1); },
);
if (!Spec.SpecVersionDict[process.argv[2]]) process.exitCode = 2;
