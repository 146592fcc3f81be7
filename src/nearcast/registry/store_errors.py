"""What a cloud's store means when it refuses something, as errors of ours with what to do.

obstore tells some refusals by type and others by the text of the answer alone (of a listing, all of them): the words
looked for here are those of S3, GCS and Azure. Decides nothing about objects that are not there.
"""

from typing import Final

from obstore.exceptions import NotSupportedError, PermissionDeniedError, UnauthenticatedError

from nearcast.errors import Forbidden, InvalidInput, NearcastError, Unauthenticated, Unavailable

_NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")


def names_no_bucket(error: Exception) -> bool:
    """Whether it is the bucket that is not there, not an object in it."""
    return any(word in str(error) for word in _NO_BUCKET)


def no_bucket(where: str) -> InvalidInput:
    """There is no bucket at ``where``."""
    return InvalidInput(
        f"{where}: there is no such bucket", hint="Make the bucket first; check its name, region and endpoint."
    )


def refused(error: Exception, where: str) -> NearcastError:
    """What a store's word means, and what to do. Of the word itself the first line: the rest is for programmers."""
    said, whole = first_line(error), str(error)
    if names_no_bucket(error):
        return no_bucket(where)
    if isinstance(error, NotSupportedError) or "NotImplemented" in whole:
        return InvalidInput(
            f"{where}: the store lacks something that nearcast needs: {said}",
            hint="It must be able to write conditionally (If-None-Match, If-Match).",
        )
    if "PermanentRedirect" in whole or "AuthorizationHeaderMalformed" in whole or "IllegalLocationConstraint" in whole:
        return InvalidInput(f"{where}: the bucket lies in another region: {said}", hint="Set AWS_REGION to its region.")
    if isinstance(error, UnauthenticatedError) or any(word in whole for word in _NO_KEY):
        return Unauthenticated(
            f"{where}: the store does not know our credentials: {said}",
            hint="Set its usual variables: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "GOOGLE_APPLICATION_CREDENTIALS, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY.",
        )
    if isinstance(error, PermissionDeniedError) or "403 Forbidden" in whole:
        return Forbidden(
            f"{where}: the store refuses us: {said}",
            hint="Our credentials need to get, put, delete and list objects below the prefix.",
        )
    return Unavailable(f"{where} failed: {said}", retry_after_s=5.0)


_NO_KEY: Final = (
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
    *("failed to authenticate", "InvalidAuthenticationInfo", "401 Unauthorized"),
    *("169.254.169.254", "metadata.google.internal"),
)
"""Words of S3; of Azure, and of what a listing is told anywhere; the last: without any key the client asks the cloud's
own machines for one, and there is nobody."""


def first_line(error: Exception) -> str:
    """What it says, without what is for programmers."""
    return (str(error).splitlines() or [type(error).__name__])[0]
