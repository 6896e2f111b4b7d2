/** Keeps secrets out of what others' words bring into our messages. */

/** Hides what looks like a bearer token, basic credentials or a JSON web token, and the secrets given. */
export function scrub(text: string, secrets: readonly string[] = []): string {
  let clean = text
    .replace(/\b(bearer|basic)\s+[A-Za-z0-9\-._~+/]{8,}=*/gi, '$1 REDACTED')
    .replace(/\beyJ[\w-]{5,}\.[\w-]+\.?[\w-]*/g, 'REDACTED');
  for (const secret of secrets) {
    // Shorter ones are found everywhere by chance, and hiding them would tell them.
    if (secret.length < 4) continue;
    for (const form of new Set([secret, encodeURIComponent(secret), Buffer.from(secret).toString('base64')])) {
      clean = clean.replaceAll(form, 'REDACTED');
    }
  }
  return clean;
}
