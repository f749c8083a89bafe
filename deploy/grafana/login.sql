-- Grafana's login, or makes it what it should be: psql -f, as the database's owner (PGSERVICE or PGPASSFILE say how, not
-- a URL with a password), with its name in ANALYST_LOGIN and its password in ANALYST_PASSWORD. Rights are inherited from analyst, limits are not (docs/connect.md).
\set ON_ERROR_STOP on
\getenv login ANALYST_LOGIN
\getenv password ANALYST_PASSWORD

SELECT format('CREATE ROLE %I', :'login') WHERE to_regrole(quote_ident(:'login')) IS NULL \gexec
ALTER ROLE :"login" LOGIN PASSWORD :'password' CONNECTION LIMIT 5;
GRANT analyst TO :"login";
ALTER ROLE :"login" SET statement_timeout = '60s';
ALTER ROLE :"login" SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE :"login" SET default_transaction_read_only = on;
