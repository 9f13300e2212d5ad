required FLOWER_COOKIE_SECRET
write flower.env FLOWER_AUTH FLOWER_COOKIE_SECRET FLOWER_OAUTH2_KEY FLOWER_OAUTH2_SECRET
redirect="$(value FLOWER_OAUTH2_REDIRECT_URI)"
echo "FLOWER_OAUTH2_REDIRECT_URI=${redirect:-http://localhost:5555/login}" >> "$target/flower.env"
