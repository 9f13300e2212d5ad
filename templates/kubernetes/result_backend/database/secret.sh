setting() { # a literal of the overlay, or its default
  sed -n "s/^ *- $1=\([^ ]*\).*/\1/p" "$overlay/kustomization.yaml" | grep . || echo "$2"
}
printf 'CELERY_RESULT_BACKEND=db+postgresql+psycopg://%s:%s@%s:%s/%s\n' "$(value POSTGRES_USER)" "$(value POSTGRES_PASSWORD)" \
  "$(setting POSTGRES_HOST db)" "$(setting POSTGRES_PORT 5432)" "$(value POSTGRES_DB)" > "$target/results.env"
