"""The daemon as a service of the system: systemd, launchd, or Windows' service control manager.

`definition` says what a service is, `systemd_unit` and `launchd_plist` write it down, `access` who could read it: all pure. The
managers (`systemd`, `launchd`, `windows`) do, each by its system's own tools. The program that Windows starts is `windows_service`.
"""
