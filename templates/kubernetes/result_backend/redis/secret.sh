if [[ "$1" == production ]]; then
  required CELERY_RESULT_BACKEND
  write results.env CELERY_RESULT_BACKEND
else
  echo "CELERY_RESULT_BACKEND=redis://redis:6379/0?socket_timeout=5&socket_connect_timeout=5" > "$target/results.env"
fi
