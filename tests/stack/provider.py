"""OAuth 2 provider with the paths of GitHub, GitLab and Okta. It runs in Flower's network namespace.

The parameter `login` selects the user.
"""

from typing import Annotated, Any
from urllib.parse import parse_qsl

import uvicorn
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import RedirectResponse

app = FastAPI()


@app.get("/login/oauth/authorize")
@app.get("/oauth/authorize")
@app.get("/oauth2/v1/authorize")
def authorize(redirect_uri: str, state: str, client_id: str, login: str) -> RedirectResponse:
    """Redirect the browser to Flower with a code."""
    if client_id != "the-key":
        raise HTTPException(400, "unknown client")
    return RedirectResponse(f"{redirect_uri}?code={login}&state={state}", 302)


@app.post("/login/oauth/access_token")
@app.post("/oauth/token")
@app.post("/oauth2/v1/token")
async def token(request: Request) -> dict[str, str]:
    """Return a token for a code, if the client secret is right."""
    form = dict(parse_qsl((await request.body()).decode()))
    if form["client_secret"] != "the-secret":
        raise HTTPException(401, "wrong secret")
    return {"access_token": form["code"]}


@app.get("/api/v3/user/emails")
def github(authorization: Annotated[str, Header()]) -> list[dict[str, Any]]:
    """Return the addresses of the user in GitHub's format."""
    return [{"email": authorization.split()[1], "verified": True}]


@app.get("/api/v4/user")
@app.get("/oauth2/v1/userinfo")
def others(authorization: Annotated[str, Header()]) -> dict[str, Any]:
    """Return the address of the user in the format of GitLab and Okta."""
    return {"email": authorization.split()[1], "email_verified": True}


uvicorn.run(app, host="0.0.0.0", port=9443, ssl_certfile="/provider/provider.pem", ssl_keyfile="/provider/provider.pem")
