-- The application's role. It owns the schema "public" of the application's database, and nothing else.
--
-- The db service runs this file when it creates its volume. For your own PostgreSQL server, create the database and
-- run the file as an administrator:
--
--   APP_USER=app APP_PASSWORD=... psql --file=db/role.sql "host=db.example.com user=postgres dbname=app"

\set ON_ERROR_STOP on
\getenv role APP_USER
\getenv password APP_PASSWORD

CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';

-- By default, every role may connect to every database.
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO :"role";

-- An administrator who is not a superuser must be a member of the new owner.
GRANT :"role" TO CURRENT_USER;
ALTER SCHEMA public OWNER TO :"role";
REVOKE :"role" FROM CURRENT_USER;

-- An administrator of a managed server may not own these databases; the message is harmless.
\set ON_ERROR_STOP off
REVOKE ALL ON DATABASE postgres FROM PUBLIC;
REVOKE ALL ON DATABASE template1 FROM PUBLIC;
