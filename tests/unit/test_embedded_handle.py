"""What of a database's URL may stand in a list of processes."""

import pytest

from service.embedded.handle import named, without_password


@pytest.mark.parametrize(
    ("url", "shown", "password"),
    [
        ("postgresql://ann:s3cret@db/linkbeat", "postgresql://ann@db/linkbeat", "s3cret"),
        (
            "postgresql://ann:s3%20%40cret@db:5433/x?sslmode=require",
            "postgresql://ann@db:5433/x?sslmode=require",
            "s3 @cret",
        ),
        (
            "postgresql://ann@db/x?password=s3cret&connect_timeout=3",
            "postgresql://ann@db/x?connect_timeout=3",
            "s3cret",
        ),
        ("postgresql://ann:other@db/x?password=s3cret", "postgresql://ann@db/x", "s3cret"),
        (
            "postgresql://ann:s3cret@/x?host=/run/a%20b&port=5432",
            "postgresql://ann@/x?host=/run/a%20b&port=5432",
            "s3cret",
        ),
        ("postgresql://ann:s3cret@[::1]:5432,db2:5433/x", "postgresql://ann@[::1]:5432,db2:5433/x", "s3cret"),
        ("postgresql://:s3cret@db/x", "postgresql://@db/x", "s3cret"),
        ("postgres://ann@db/x?sslkey=k&sslpassword=s3cret", "postgres://ann@db/x?sslkey=k", ""),
        ("postgresql://db/x", "postgresql://db/x", ""),
    ],
)
def test_a_password_is_taken_out_of_the_url(url: str, shown: str, password: str) -> None:
    assert without_password(url) == (shown, password)


def test_psql_gets_it_by_its_environment() -> None:
    handle = named("postgresql://ann:s3cret@db/linkbeat", "LINKBEAT_DATABASE_URL")

    assert handle.psql_environment == {"PGPASSWORD": "s3cret"}
    assert handle.psql is None or not any("s3cret" in argument for argument in handle.psql)
